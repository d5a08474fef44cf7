# python -m training.efficient_lvsm: train Efficient-LVSM; see --help.
import sys

from runtime.command import run_command
from training.efficient_lvsm.flags import parse


def main() -> None:
    """Parse, then train."""
    flags = parse(sys.argv[1:])
    from training.efficient_lvsm.commands import train_views  # torch, only once the flags are right

    train_views(flags)


if __name__ == "__main__":
    run_command(main)
