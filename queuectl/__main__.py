"""The command `queuectl`."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from queuectl.cli import quick

    status = quick.run(sys.argv[1:])
    if status is None:
        from queuectl.cli.main import run

        status = run()
    sys.exit(status)


if __name__ == "__main__":
    main()
