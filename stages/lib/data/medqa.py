"""A question with options, as MedQA has them: its prompt, and its answer as text."""

OPTION_LETTERS = ("A", "B", "C", "D", "E")  # of a question's options, which are two to five: the first so many
LETTERS = OPTION_LETTERS[:4]  # MedQA's four options
INSTRUCTION = "Answer with the letter of the correct option."


def letters_of(options: dict[str, str]) -> tuple[str, ...]:
    """The letters of a question's options, in order."""
    return OPTION_LETTERS[: len(options)]


def question_text(question: str, options: dict[str, str]) -> str:
    """The question and one option a line."""
    return "\n".join([question, *(f"{letter}. {options[letter]}" for letter in letters_of(options))])


def question_prompt(question: str, options: dict[str, str]) -> str:
    """The user's text: question, options, what to answer with."""
    return f"{question_text(question, options)}\n{INSTRUCTION}"


def answer_text(answer_idx: str, options: dict[str, str]) -> str:
    """The answer that is trained: letter and text."""
    return f"{answer_idx}. {options[answer_idx]}"
