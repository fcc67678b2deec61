"""MedQA: a question as a prompt, its answer as text."""

LETTERS = ("A", "B", "C", "D")
INSTRUCTION = "Answer with the letter of the correct option."


def question_text(question: str, options: dict[str, str]) -> str:
    """The question and one option a line."""
    return "\n".join([question, *(f"{letter}. {options[letter]}" for letter in LETTERS)])


def question_prompt(question: str, options: dict[str, str]) -> str:
    """The user's text: question, options, what to answer with."""
    return f"{question_text(question, options)}\n{INSTRUCTION}"


def answer_text(answer_idx: str, options: dict[str, str]) -> str:
    """The answer that is trained: letter and text."""
    return f"{answer_idx}. {options[answer_idx]}"
