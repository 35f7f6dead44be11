//! What a tier decides, and why.
