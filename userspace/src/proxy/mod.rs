//! The proxy tier: `accept -> inspect -> forward | refuse`.
