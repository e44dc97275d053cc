"""The command of :mod:`~datadose.studies.gpt.timed.run`."""

from datadose.studies.gpt.timed.run import main

if __name__ == "__main__":
    main()
