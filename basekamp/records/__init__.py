"""Records: one immutable result each, the verdict it carries, and the champion that follows from all of them."""
