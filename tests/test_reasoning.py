"""Reasoning is stripped from responses in every form, and reasoning without an end leaves nothing."""

import pytest

from refusal_utils import reasoning
from refusal_utils.judging.phrase_judge import judge_response
from refusal_utils.reasoning import ends_in_reasoning, without_reasoning

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
    "<cot>{}</cot>{}",
    "<internal>{}</internal>{}",
    "<reason>{}</reason>{}",
    "<Chain_of_Thought>{}</Chain_of_Thought>{}",
    "<inner_thoughts>{}</inner_thoughts>{}",
    "<longcat_think>{}</longcat_think>{}",
    "<|thinking_start|>{}<|thinking_end|><|answer_start|>{}<|answer_end|>",
    "<|cot_start|>{}<|cot_end|>{}",
    "<start_of_thinking>{}</end_of_thinking>{}",
    "<think effort='low'>{}</thinking>{}",
    "<think>Open <think> once. {}</think>{}",
    "<think>{} ```</think>{}",
    "<|think|>{}<|end|><|begin|>assistant<|content|>{}",
    "[unused16]{}[unused17]{}",
    '<details type="reasoning" done="true">{}</details>{}',
    "Thinking...\n{}\n...done thinking.\n{}",
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


def test_a_generation_prompt_that_ends_in_reasoning_is_recognised():
    tagged = [form.split("{}")[0] for form in FORMS if form[0] in "<[◁" and not form.startswith("<details")]
    assert len(tagged) > 20
    assert all(ends_in_reasoning(f"<|im_start|>assistant\n{tag}") for tag in tagged)
    assert not ends_in_reasoning("<|im_start|>assistant\n")
    assert not ends_in_reasoning("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "The `<think>` tag opens a thought.",
        'Split at "</think>" first.',
        "analysis of data",
        "He [thinking] left.",
        "a < b > c",
        "<p>I <b>think</b> so.</p>",
        "<error><reason>Timeout</reason><code>5</code></error>",
        "<root>\n  <analysis>Good</analysis>\n  <internal>true</internal>\n</root>",
        "<bubble><thought>Hm</thought></bubble> and <bubble><thought>So</thought></bubble>",
        "<config><thinking>on</thinking></config>",
        "<analysis>Sales rose.</analysis>",
        "<analysis>\n <item>1</item>",
        "The element <reflection>mirror</reflection> is in the file.",
        "<internal-link href='x'>a</internal-link>",
        "```xml\n<thought>Hm</thought>\n```\nThat is the file.",
        '```python\nanswer = text.split("</think>")[1]\n```',
        "```html\n<think>",
    ],
)
def test_text_that_only_looks_like_reasoning_stays(text):
    assert without_reasoning(text) == text


@pytest.mark.parametrize(
    "part", ["<think>Well, is it so?</think> {} ", "<think>Well, is it so?</think>\n", "[THINK]So?[/THINK] {} "]
)
def test_many_parts_are_searched_once_and_not_again_from_each_part_on(part, monkeypatch):
    searched, marks = [], reasoning._marks
    monkeypatch.setattr(reasoning, "_marks", lambda text, at=0: searched.append(len(text) - at) or marks(text, at))
    for n in (50, 200):
        text = part.format(ANSWER) * n
        searched.clear()
        left = without_reasoning(text)
        assert sum(searched) <= 2 * len(text)  # from each part on, it would be about n / 2 times the text
        assert left.count(ANSWER) == text.count(ANSWER)
        assert "think" not in left.lower()
