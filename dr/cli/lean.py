"""Keep out of the agent what `websockets` imports and an agent never uses: over 2 MiB on every host.

It reads its own package metadata (importlib.metadata, email, zipfile, csv) for a version string, and the
environment's proxies (urllib.request, http.client), which the agent's link must not go through anyway.
Measured with websockets 17. If its modules change, this does nothing, and only the memory comes back.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_websockets() -> None:
    """Import the client with small stand-ins for these two; only its own version stays one."""
    if "websockets" in sys.modules:
        return
    version: Any = ModuleType("websockets.version")
    version.version = version.tag = "unknown"
    version.commit = ""
    request: Any = ModuleType("urllib.request")
    request.getproxies = dict
    request.proxy_bypass = lambda host: True
    stand_ins = {"websockets.version": version, "urllib.request": request}
    taken = {name for name, module in stand_ins.items() if sys.modules.setdefault(name, module) is module}
    try:
        import_module("websockets.asyncio.client")
    except (ImportError, AttributeError):  # this version needs more of them: let it have the real ones
        for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
            del sys.modules[name]
    finally:
        if "urllib.request" in taken:
            del sys.modules["urllib.request"]
