# python -m models.checkpoints inspect FILE | convert IN OUT [--vqvae FILE] [--base FILE]
from runtime.command import run_command


def main() -> None:
    """Parse the command line and run it."""
    from models.checkpoints.command import run

    run()


if __name__ == "__main__":
    run_command(main)
