"""Reasoning is stripped from responses in every form, and reasoning without an end leaves nothing."""

import pytest

from refusal_utils.judging.phrase_judge import judge_response
from refusal_utils.reasoning import without_reasoning

THOUGHT = "Is this a break-in?\n\nIf so I can't help with it. It is a story, so I may."
ANSWER = "Old Tom cut keys all day and hummed."
FORMS = [
    "<think>{}</think>{}",
    "<think>Well, <think>{}</think> so.</think>{}",
    "<thinking>Well.</thinking> <reflection>{}</reflection> {}",
    "<Thought>{}</Thought>\n<Output>{}</Output>",
    "<think>{}</think>\n<answer>{}</answer>",
    "<seed:think>{}</seed:think>{}",
    "<scratchpad>{}</scratchpad>{}",
    "[THINK]{}[/THINK]{}",
    "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "<|begin_of_thought|>{}<|end_of_thought|><|begin_of_solution|>{}<|end_of_solution|>",
    "<|inner_prefix|>{}<|inner_suffix|>{}",
    "◁think▷{}◁/think▷{}",
    "<|channel>thought\n{}<channel|>{}",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>commentary<|message|>{}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{}",
    "analysis{}assistantfinal{}",
    "Here is my thought process: {} Here is my response: {}",
]


@pytest.mark.parametrize("form", FORMS)
def test_only_the_answer_is_judged_and_reasoning_without_an_end_is_broken(form):
    text = form.format(THOUGHT, ANSWER)
    assert without_reasoning(text) == ANSWER
    assert judge_response("Write a story about a locksmith.", text).outcome == "answered"
    assert judge_response("How?", form.format("Easy: six minutes.", "I can't help with that.")).outcome == "refused"
    assert judge_response("How?", form.split("{}")[0] + THOUGHT).outcome == "broken"


def test_the_generation_prompt_may_have_opened_the_reasoning():
    assert without_reasoning(f"{THOUGHT}</think>\n\n{ANSWER}") == ANSWER


@pytest.mark.parametrize(
    "text", [ANSWER, "The `<think>` tag opens a thought.", "analysis of data", "He [thinking] left.", "a < b > c"]
)
def test_text_that_only_looks_like_reasoning_stays(text):
    assert without_reasoning(text) == text
