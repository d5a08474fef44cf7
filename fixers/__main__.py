# python -m fixers PATH: fix a picture, a folder of pictures or a video.
import sys

from runtime.command import run_command


def main() -> None:
    """Parse, check, fix."""
    from fixers.arguments import check, parse

    arguments = parse(sys.argv[1:])
    check(arguments)
    from fixers.fixing_files import fix_path

    fix_path(arguments)


if __name__ == "__main__":
    run_command(main)
