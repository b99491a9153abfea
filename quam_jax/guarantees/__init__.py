"""From labelled cases to statements with a guarantee, and from a guarantee to what it says of one case."""
