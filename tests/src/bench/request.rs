//! A usual request: about 1.1 kB, with a bearer token of 800 bytes.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// Bytes of the token.
pub const TOKEN: usize = 800;
/// Path and query.
pub const TARGET: &str = "/api/v1/items?page=2&sort=asc";

/// The last part of the id of a request.
pub const ID: &str = "7c0f4a3f8e21";

/// Bytes that look random, the same in every run.
#[must_use]
pub fn random(label: &str, len: usize) -> Vec<u8> {
    (0_u64..)
        .flat_map(|block| Sha256::digest(format!("{label} {block}")))
        .take(len)
        .collect()
}

/// An opaque token of [`TOKEN`] bytes.
#[must_use]
pub fn opaque(label: &str) -> String {
    BASE64_URL_SAFE_NO_PAD
        .encode(random(label, TOKEN))
        .chars()
        .take(TOKEN)
        .collect()
}

/// The header lines, one of them with the token.
#[must_use]
pub fn headers(token: &str) -> [String; 8] {
    [
        "Host: api.example.org".to_owned(),
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101".to_owned(),
        "Accept: application/json".to_owned(),
        "Accept-Language: en-US,en;q=0.5".to_owned(),
        "Accept-Encoding: gzip, deflate, br".to_owned(),
        format!("Authorization: Bearer {token}"),
        format!("X-Request-Id: 6f1f9cf0-6f6c-4b1a-9d1b-{ID}"),
        "Connection: keep-alive".to_owned(),
    ]
}
