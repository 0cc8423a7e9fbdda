"""The tracked command: one line for a user's error."""

import pytest

pytestmark = pytest.mark.orchestration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trane"], "expected `python -m tasks <stage>"),
        (["train", "seed"], "expected key=value, got 'seed'"),
        (["propose", "shard=0"], "stage propose takes"),
    ],
)
def test_a_wrong_command_ends_in_one_line_and_code_2(tiny, by_hand, capsys, arguments, message):
    from tasks.__main__ import main

    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl: ")]
    assert len(lines) == 1
    assert message in lines[0]
