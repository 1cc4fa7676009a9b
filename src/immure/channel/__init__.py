"""The framed protocol with a box that no descriptor can be passed into: codec, state, and what moves its bytes."""
