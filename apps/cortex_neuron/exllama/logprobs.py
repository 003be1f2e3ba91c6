r"""Log probabilities in the two forms that OpenAI's answers have.

A token that is no whole character has its bytes written out, as `\xf0\x9f`.
"""

from collections.abc import Iterable
from typing import Any, Final

from cortex_neuron.exllama.text_stream import TokenRow
from cortex_neuron.exllama.vocabulary import Vocabulary

#: What JSON can say of a token that cannot come at all.
LEAST: Final = -9999.0


def chat_logprobs(rows: Iterable[TokenRow], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Return the rows as a chat's `logprobs.content`."""
    return [
        {
            **_entry(row.token, row.logprob.logprob, vocabulary),
            "top_logprobs": [_entry(token, odds, vocabulary) for token, odds in row.logprob.top],
        }
        for row in rows
    ]


def text_logprobs(rows: Iterable[TokenRow], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the rows as a text completion's `logprobs`."""
    known = list(rows)
    return {
        "tokens": [_text(row.token, vocabulary) for row in known],
        "token_logprobs": [max(LEAST, row.logprob.logprob) for row in known],
        "top_logprobs": [
            {
                _text(token, vocabulary): max(LEAST, odds)
                for token, odds in reversed(row.logprob.top)
            }
            for row in known
        ],
        "text_offset": [row.offset for row in known],
    }


def _entry(token: int, odds: float, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "token": _text(token, vocabulary),
        "logprob": max(LEAST, odds),
        "bytes": list(vocabulary.piece(token)),
    }


def _text(token: int, vocabulary: Vocabulary) -> str:
    return vocabulary.piece(token).decode("utf-8", "backslashreplace")
