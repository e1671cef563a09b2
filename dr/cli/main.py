"""The `dr` command's entry. It decides one thing: whether this is the agent, which must not load what others need."""

from __future__ import annotations

import sys

from dr.cli.failure import Exit, Failure, tell


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    try:
        if _is_agent(arguments):
            from dr.cli import agent_process

            code = agent_process.main(arguments[2:] if arguments[1:2] == ["run"] else arguments[1:])
        else:
            from dr.cli.app import run

            code = run(arguments)
    except Failure as failure:
        tell(failure.text())
        code = failure.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        _close_quietly()
        code = Exit.OK  # `dr events | head`
    sys.exit(int(code))


def _is_agent(arguments: list[str]) -> bool:
    """`dr agent`, `dr agent run`, `dr agent --config F`; not `dr agent join`, nor a call for help."""
    if arguments[:1] != ["agent"] or "--help" in arguments:
        return False
    return len(arguments) == 1 or arguments[1] == "run" or arguments[1].startswith("-")


def _close_quietly() -> None:
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
