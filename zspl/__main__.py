"""`python -m zspl` is `zspl`."""

from zspl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
