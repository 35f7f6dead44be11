//! What is reported of a block.
