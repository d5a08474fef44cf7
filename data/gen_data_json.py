# The place where the original has this command; the code is gen_data/gen_data_json.py.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gen_data.gen_data_json import cli

if __name__ == "__main__":
    cli()
