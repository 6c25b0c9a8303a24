"""``python -m firstwords``: the command line, where its script is not on the path."""

from firstwords.cli.main import main

if __name__ == "__main__":
    main()
