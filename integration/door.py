"""Asks the coordinator's API for as long as its standard input is open: a request a line, an answer a line, all JSON.

A `dr` command costs a second of a busy core; a test that waits for something asks twenty times. Run inside the
coordinator's machine by integration.site; it uses what the `dr` command uses there, credential included.
"""

from __future__ import annotations

import json
import sys

import httpx

from dr.adapters.pki.credentials import client_context
from dr.cli import credentials


def main() -> None:
    client = credentials.load()
    with httpx.Client(verify=client_context(client.credentials), timeout=10, trust_env=False) as http:
        for line in sys.stdin:
            method, path, body = json.loads(line)
            try:
                answer = http.request(method, client.urls[0] + path, json=body)
                said = {"status": answer.status_code, "body": answer.json()}
            except (httpx.HTTPError, ValueError) as error:
                said = {"status": 0, "body": {"title": f"{type(error).__name__}: {error}"}}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
