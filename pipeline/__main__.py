"""`python -m pipeline`: the same as `maskgit`."""

from pipeline.cli.app import main

if __name__ == "__main__":
    main()
