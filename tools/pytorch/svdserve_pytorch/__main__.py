"""python -m svdserve_pytorch convert ...: see README.md."""

import argparse
import sys

from . import convert
from .checkpoint import DTYPES
from .converting import SHAPES


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="python -m svdserve_pytorch")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "convert", help="a state dict that holds factors already -> a directory that svdserve serves")
    one.add_argument("state_dict", help=".safetensors, an index of such (.json), or a file of torch.save")
    one.add_argument("target", help="the directory to write")
    one.add_argument("--like", required=True, metavar="DIR", help="the dense model: configuration, tokenizer, modules")
    one.add_argument("--u", required=True, metavar="PATTERN", help="such as '{name}.svd_u'")
    one.add_argument("--v", required=True, metavar="PATTERN", help="such as '{name}.svd_v'")
    one.add_argument("--s", metavar="PATTERN", help="singular values [rank], if they lie apart")
    one.add_argument("--u-shape", choices=SHAPES, help="by default what fits all shapes")
    one.add_argument("--v-shape", choices=SHAPES, help="by default what fits all shapes")
    one.add_argument("--key", help="the entry of a torch file that holds the tensors")
    one.add_argument("--prefix", default="", help="removed from names, such as 'module.'")
    one.add_argument("--ignore", action="append", default=[], metavar="PATTERN",
                     help="tensors to leave out, by shell pattern")
    one.add_argument("--fill", action="store_true", help="take tensors that are missing from --like")
    one.add_argument("--dtype", choices=list(DTYPES), help="of all tensors; by default as they are")
    one.add_argument("--force", action="store_true", help="replace a model's directory")
    return vars(parser.parse_args(arguments))


def main(arguments=None):
    options = parse_arguments(arguments)
    del options["command"]  # there is one
    options["dtype"] = DTYPES.get(options["dtype"])
    try:
        ranks = convert(**options)
    except (ValueError, OSError) as error:
        print(f"svdserve_pytorch: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options['target']}: {len(ranks)} matrices of ranks {min(ranks.values())} to {max(ranks.values())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
