"""What hypothesis draws specs from."""

from __future__ import annotations

from hypothesis import strategies as st

HOSTILE_CHARACTERS = "\"'\\;{}$#\n\r\t ()`%&|<>*?[]~!^\x00\x7f…ü"
hostile_text = st.text(alphabet=st.sampled_from("ab1./-_" + HOSTILE_CHARACTERS), min_size=1, max_size=30) | st.text(
    min_size=1, max_size=30
)
"""Short texts made mostly of what some configuration format treats as special."""

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
domain_names = st.builds(
    lambda parts, top: ".".join([*parts, top]), st.lists(labels, min_size=1, max_size=4), st.just("test")
)
document_roots = st.lists(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}", fullmatch=True), min_size=1, max_size=4
).map("/".join)
