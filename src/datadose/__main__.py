"""`python -m datadose`."""

from datadose.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
