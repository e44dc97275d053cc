"""`python -m datadose.cli`."""

from datadose.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
