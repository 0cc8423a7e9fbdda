"""What `zspl weights` accepts."""

import argparse

from zspl.cli._parsers._layout import Commands, formatted

_WEIGHTS = """\
examples:
  zspl weights list                                   what there is, and what is here
  zspl weights get mobile_sam ViT-B-16-quickgelu:openai
  zspl weights verify                                 hash everything in the folder again
  zspl weights path sam_vit_b                         for scripts: the file, or exit code 2

Commands that need weights download them on their own; `get` is for doing it beforehand, such as
on the way to a machine without network: copy the folder there and set ZSPL_WEIGHTS to it.
A download that breaks off goes on where it stopped, nothing appears under its final name before
its checksum is right, and files are read without running code from them.

environment:
  ZSPL_WEIGHTS      the folder (~/.cache/zspl/weights)
  HF_ENDPOINT       a mirror of the Hugging Face hub
  HF_HUB_OFFLINE=1  ask the hub for nothing
exit codes: 0 done, 1 a file is damaged or missing (verify), 2 you can fix it, 130 stopped"""

_LIST = """\
size: ~ where only about right; the server tells it exactly.
state: present, absent, incomplete (`get` goes on from there) or damaged (of the wrong length;
`verify` also hashes). Files that no row describes come last. A path below the folder is fit for
the settings `checkpoint` of SAM and `pretrained` of CLIP and of the backbones."""

_GET = """\
examples:
  zspl weights get sam_vit_h
  zspl weights get ViT-B-16-quickgelu:metaclip_400m
  zspl weights get mine.safetensors --url https://example.org/m.safetensors --sha256 5f2c...

A name of `zspl weights list`, any MODEL:TAG of open_clip, or a file name with its own address.
Prints the path of each file; licences and progress go to stderr. Without network it says so
within seconds."""

_VERIFY = """\
examples:
  zspl weights verify
  zspl weights verify sam_vit_b
  zspl weights verify mine.pth --sha256 5f2c...

Files are compared with the catalog, or with the FILE.sha256 that `get` wrote beside them; of
others the sha256 is printed. Exit code 1 if a file is damaged, or a named one is missing.
Unfinished downloads are named and are no error."""


def add(commands: Commands) -> None:
    """Add `zspl weights`."""
    help_ = "list, download and check checkpoints"
    command = formatted(
        commands.add_parser("weights", help=help_, description=help_, epilog=_WEIGHTS)
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    _list(actions)
    _get(actions)
    _verify(actions)
    _path(actions)


def _list(actions: Commands) -> None:
    action = _action(actions, "list", "show the known weights and which of them are here", _LIST)
    action.add_argument("--json", action="store_true", help="for programs, with all that is known")


def _get(actions: Commands) -> None:
    action = _action(actions, "get", "download weights and verify them", _GET)
    action.add_argument("names", nargs="+", metavar="NAME")
    action.add_argument("--url", help="the address of one file that is in no list")
    action.add_argument("--sha256", help="with --url: what its checksum must begin with")


def _verify(actions: Commands) -> None:
    action = _action(actions, "verify", "hash the files that are here and compare", _VERIFY)
    action.add_argument("names", nargs="*", metavar="NAME", help="weights or files (all)")
    action.add_argument("--all", action="store_true", help="everything in the folder, the default")
    action.add_argument("--sha256", help="of one file: what its checksum must begin with")


def _path(actions: Commands) -> None:
    action = _action(actions, "path", "print where weights lie", None)
    action.add_argument("name", metavar="NAME")


def _action(
    actions: Commands, name: str, help_: str, epilog: str | None
) -> argparse.ArgumentParser:
    return formatted(actions.add_parser(name, help=help_, description=help_, epilog=epilog))
