"""Grammars walked by hand: which texts they let an answer be."""

from cortex_neuron.exllama.grammar import Grammar, GrammarMask
from cortex_neuron.exllama.vocabulary import Vocabulary


def allowed(mask: GrammarMask, vocabulary: Vocabulary) -> set[int]:
    """The tokens that may come next."""
    bits = mask.allowed()
    return {token for token in range(vocabulary.size) if bits[token // 8] >> token % 8 & 1}


def takes(grammar: Grammar, vocabulary: Vocabulary, text: str) -> bool:
    """Whether an answer may be exactly this text."""
    mask = grammar.mask()
    for token in vocabulary.encode_chat(text):
        if token not in allowed(mask, vocabulary):
            return False
        mask.accept(token)
    return bool(vocabulary.eos_ids & allowed(mask, vocabulary))
