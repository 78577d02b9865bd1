"""``python -m fastgan``: the command, where no script is on the path."""

from fastgan.cli import main

if __name__ == "__main__":
    main(prog_name="fastgan")
