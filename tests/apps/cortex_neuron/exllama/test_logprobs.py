"""Log probabilities as OpenAI's clients read them."""

from cortex_neuron.exllama.jobs import TokenLogprob
from cortex_neuron.exllama.logprobs import chat_logprobs, text_logprobs
from cortex_neuron.exllama.text_stream import TokenRow
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary

VOCABULARY = bytes_vocabulary()
A, B = VOCABULARY.encode_chat("a") + VOCABULARY.encode_chat("b")
HALF = next(token for token in range(VOCABULARY.size) if VOCABULARY.piece(token) == b"\xf0")
ROWS = [
    TokenRow(A, 0, TokenLogprob(-0.25, ((A, -0.25), (B, float("-inf"))))),
    TokenRow(HALF, 1, TokenLogprob(-1.5)),
]


def test_a_chat_has_an_entry_for_each_token() -> None:
    """With its bytes, which are all there is of half a character, and no number that JSON lacks."""
    assert chat_logprobs(ROWS, VOCABULARY) == [
        {
            "token": "a",
            "logprob": -0.25,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.25, "bytes": [97]},
                {"token": "b", "logprob": -9999.0, "bytes": [98]},
            ],
        },
        {"token": "\\xf0", "logprob": -1.5, "bytes": [240], "top_logprobs": []},
    ]


def test_a_text_completion_has_lists_of_equal_length() -> None:
    """One place in each for each token, and where in the text it begins."""
    assert text_logprobs(ROWS, VOCABULARY) == {
        "tokens": ["a", "\\xf0"],
        "token_logprobs": [-0.25, -1.5],
        "top_logprobs": [{"b": -9999.0, "a": -0.25}, {}],
        "text_offset": [0, 1],
    }


def test_of_tokens_that_look_alike_the_likelier_counts() -> None:
    """A completion's alternatives are by their text, and texts may be the same."""
    other = VOCABULARY.size  # no token: no text, as the one behind it
    rows = [TokenRow(A, 0, TokenLogprob(-1, ((other, -0.1), (other + 1, -3.0))))]

    assert text_logprobs(rows, VOCABULARY)["top_logprobs"] == [{"": -0.1}]
