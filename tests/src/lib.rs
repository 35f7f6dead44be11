//! What the tests share: the fixtures that feed every floor, the reference scanner, and the harness of the
//! whole-host floor (namespaces, origin, client, product).

pub mod fixtures;
pub mod reference;
