"""What failed before anything was answered: bad prompts, or a setting that all of them ask for.

A limit below `max_new_tokens`, a context too small for any prompt, a model under another name: each
fails every request, and a dead letter is never asked again. So failures are put by until the
teacher has answered one request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import cast

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import Teacher

# So many bad prompts in a row, without one answer, are less likely than a bad setting.
MAX_FAILED = 64
_OF_THE_REQUEST = ("refused", "context", "malformed")


def answers(
    teacher: Teacher, requests: Iterator[Request], is_known_to_answer: Callable[[], bool]
) -> Generator[Answer, None, None]:
    """As `teacher.answers`, but failures come after the first answer that is none.

    Args:
      is_known_to_answer: whether others of these requests were answered by earlier runs; asked
        where few are left, and all of them failed.

    Raises:
      InputError, MachineError: the first `MAX_FAILED` requests failed and none under way with them
        was answered, or all did and none was ever answered. What the teacher raises.
    """
    put_by: list[Answer] = []
    is_answered = was_cut = False

    def wanted() -> Iterator[Request]:
        nonlocal was_cut
        was_cut = False
        for request in requests:
            yield request
            if not is_answered and len(put_by) >= MAX_FAILED:
                was_cut = True
                return

    # Asked again for the rest where an answer that was under way shows that the others may pass.
    while True:
        found = cast("Generator[Answer, None, None]", teacher.answers(wanted()))
        with contextlib.closing(found):  # whatever stops this, the teacher is stopped
            for answer in found:
                if answer.finish == "error" and not is_answered:
                    put_by.append(answer)
                    continue
                is_answered = True
                yield from put_by
                put_by.clear()
                yield answer
        if not (was_cut and is_answered):
            break
    if put_by and (len(put_by) >= MAX_FAILED or not is_known_to_answer()):
        raise _nothing_answered(put_by)
    yield from put_by


def _nothing_answered(failed: Sequence[Answer]) -> InputError | MachineError:
    told = (
        f"of the first {len(failed)} requests none was answered ({failed[-1].error}). No dead "
        "letters were made of them: the same command asks them again."
    )
    if not failed[-1].error.startswith(_OF_THE_REQUEST):
        return MachineError(f"synthesis.teacher: {told} Mend or restart the teacher.")
    return InputError(
        f"synthesis.teacher: {told} Lower synthesis.max_new_tokens or max_seed_bytes, raise the "
        "teacher's own limits (max_model_len), or mend what it says."
    )
