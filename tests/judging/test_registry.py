import pytest

from refusal_utils.judging import wildguard
from refusal_utils.judging.phrase_judge import judge_response
from refusal_utils.judging.registry import named_judge


def test_judges_by_name(monkeypatch):
    model = object.__new__(wildguard.WildGuard)
    monkeypatch.setattr(wildguard, "WildGuard", lambda: model)
    assert named_judge("phrases") is judge_response
    assert named_judge("wildguard") is model
    with pytest.raises(
        ValueError, match="^named_judge: the judge must be one of phrases, self, wildguard; got 'gpt-4'"
    ):
        named_judge("gpt-4")
