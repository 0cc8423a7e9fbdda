"""What README and the help texts promise is there."""

import re
from pathlib import Path

from zspl.stages import STAGES

ROOT = Path(__file__).parents[2]


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text)

    assert len(text.splitlines()) <= 150
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_make_target_readme_names_exists():
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", text))

    makefile = (ROOT / "Makefile").read_text()

    assert {"demo", "test"} <= targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_dvc_yaml_speaks_the_seven_words_and_checks_the_settings_first():
    stages = re.findall(r"^  ([a-z]+)[a-z-]*:$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)

    assert set(stages) == {"check", *STAGES}
