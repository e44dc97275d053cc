"""The command that writes the sample files which the documentation names, for who has no checkout."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from datadose.cli.common import command, option
from datadose.printing import say

_SHIPPED = Path(__file__).parents[1] / "samples"
"""In a checkout it holds links to files and folders of the repository; an installed package has copies."""


@command(
    "Write the sample files that the documentation names, such as configs/plan.yaml.",
    "datadose samples --out .",
    option("--out", type=Path, default=Path(), help="the folder to write them into"),
)
def samples(arguments: argparse.Namespace, _: str) -> None:
    """Write every sample file below ``--out``; InputError if another file has its name."""
    from datadose.errors import RunError, reject
    from datadose.files import prepare_folder, write_atomic

    paths = [Path(folder, name) for folder, _, names in os.walk(_SHIPPED, followlinks=True) for name in names]
    # Links that a system without links checked out as text lie directly in the folder.
    inside = [path.relative_to(_SHIPPED) for path in sorted(paths) if path.parent != _SHIPPED]
    found = {arguments.out / path: (_SHIPPED / path).read_bytes() for path in inside}
    if not found:
        msg = f"{_SHIPPED} holds no files: this copy of datadose was made without its links"
        raise RunError(msg)
    prepare_folder("out", arguments.out)
    for path, content in found.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            reject("out", str(arguments.out), f"a folder that has no other {path.relative_to(arguments.out)}")
    for path, content in found.items():
        prepare_folder("out", path.parent)
        if not path.exists():
            write_atomic(path, content)
    folders = sorted({str(arguments.out / path.parts[0]) for path in inside})
    say(f"{len(found)} files in {', '.join(folders)}")
