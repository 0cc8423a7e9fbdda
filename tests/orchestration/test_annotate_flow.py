"""The flow `annotate` calls the real command with what its form says."""

import pytest

pytestmark = pytest.mark.orchestration

pytest.importorskip("prefect")


def test_a_field_that_is_left_empty_is_the_commands_default():
    from flows.annotate import More, command
    from zspl.cli._parsers import parser

    words = command("photos", "cat, dog", "out", More(preview=3, sam="tiny"))

    assert words[1:4] == ["-m", "zspl", "annotate"]
    given = vars(parser().parse_args(words[3:]))
    plain = ["annotate", "--images=photos", "--classes=cat, dog", "--out=out"]
    expected = vars(parser().parse_args(plain)) | {"preview": 3, "sam": "tiny"}
    assert given == expected


def test_every_field_is_an_option_of_the_command_and_is_described():
    from flows.annotate import More
    from zspl.cli._parsers import parser

    known = vars(parser().parse_args(["annotate", "--images=a", "--classes=b", "--out=c"]))
    for name, field in More.model_fields.items():
        assert name in known
        assert field.description


def test_a_value_that_looks_like_an_option_stays_a_value():
    from flows.annotate import More, command

    assert "--classes=--out" in command("photos", "--out", "out", More())
