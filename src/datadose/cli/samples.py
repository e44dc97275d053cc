"""The command that writes the sample files which the documentation names, for who has no checkout."""

from __future__ import annotations

import argparse
from pathlib import Path

from datadose.cli.common import command, option
from datadose.printing import say

_SHIPPED = Path(__file__).parents[1] / "samples"
"""In a checkout its folders are links to those of the repository; an installed package has copies."""


@command(
    "Write the sample files that the documentation names, such as configs/plan.yaml.",
    "datadose samples --out .",
    option("--out", type=Path, default=Path(), help="the folder to write them into"),
)
def samples(arguments: argparse.Namespace, _: str) -> None:
    """Write every sample file below ``--out``; InputError if another file has its name."""
    from datadose.errors import RunError, reject
    from datadose.files import prepare_folder, write_atomic

    folders = [folder.resolve() for folder in sorted(_SHIPPED.iterdir()) if folder.is_dir()]
    found = {
        arguments.out / folder.name / path.relative_to(folder): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not found:
        msg = f"{_SHIPPED} holds no files: this copy of datadose was made without its links"
        raise RunError(msg)
    prepare_folder("out", arguments.out)
    for path, content in found.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            reject(
                "out", str(arguments.out), f"a folder without a {path.relative_to(arguments.out)} of its own"
            )
    for path, content in found.items():
        prepare_folder("out", path.parent)
        if not path.exists():
            write_atomic(path, content)
    say(f"{len(found)} files in {', '.join(str(arguments.out / folder.name) for folder in folders)}")
