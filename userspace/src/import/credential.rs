//! Which named values are credentials, where no finder has decided that, and what of them is the secret.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::Secret;

/// Words in the names of credentials.
const WORDS: [&str; 20] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "jwt",
    "key",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pat",
    "pwd",
    "secret",
    "session",
    "sessionid",
    "sid",
    "token",
    "tokens",
];
/// Last words in the names of what is about a credential, but is none.
const ABOUT: [&str; 18] = [
    "algorithm",
    "count",
    "enabled",
    "expires",
    "expiry",
    "file",
    "format",
    "header",
    "host",
    "length",
    "name",
    "path",
    "port",
    "timeout",
    "ttl",
    "type",
    "url",
    "username",
];
/// What is inside longer words too: `authtoken`, `phpsessid`.
const PARTS: [&str; 5] = ["token", "secret", "passw", "apikey", "sessi"];

/// Whether a header, cookie, parameter, variable or field of this name holds a secret.
pub(super) fn is_name_of_one(name: &str) -> bool {
    let words = words(name);
    if words
        .last()
        .is_none_or(|last| ABOUT.contains(&last.as_str()))
        || words.iter().any(|word| word == "public")
    {
        return false;
    }
    let is_one = |word: &String| {
        WORDS.contains(&word.as_str()) || PARTS.iter().any(|part| word.contains(part))
    };
    words.iter().any(is_one)
}

/// The words of `SOME_name`, `some-name` and `someName`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        let starts = !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && after_lower);
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && c.is_ascii_alphanumeric()
        {
            word.push(c.to_ascii_lowercase());
        }
        after_lower = c.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The secret of a header's value: what follows the scheme; of `Basic` credentials the password, or the user
/// where that is the token.
pub(super) fn of_header(value: &str) -> Secret {
    let value = value.trim();
    match value.split_once([' ', '\t']) {
        None => Secret::new(value.to_owned()),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
            of_basic(rest.trim()).unwrap_or_else(|| Secret::new(rest.trim().to_owned()))
        }
        Some((_, rest)) => Secret::new(rest.trim().to_owned()),
    }
}

/// RFC 7617.
fn of_basic(encoded: &str) -> Option<Secret> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(encoded).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let is_token = !matches!(password, "" | "x-oauth-basic" | "X");
    let secret = if is_token { password } else { user };
    Some(Secret::new(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_credentials_and_of_other_things() {
        for name in [
            "Authorization",
            "X-API-Key",
            "access_token",
            "clientSecret",
            "PHPSESSID",
            "DB_PASSWORD",
            "STRIPE_SECRET_KEY",
            "sid",
        ] {
            assert!(is_name_of_one(name), "{name}");
        }
        for name in [
            "",
            "Host",
            "Accept",
            "monkey",
            "PUBLIC_KEY",
            "token_type",
            "TOKEN_URL",
            "key_file",
            "passenger_list",
            "author",
        ] {
            assert!(!is_name_of_one(name), "{name}");
        }
    }

    #[test]
    fn the_secret_of_a_header_is_what_follows_the_scheme() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (value, secret) in [
            ("  Bearer  abc ".to_owned(), "abc"),
            ("abc".to_owned(), "abc"),
            (basic("user:pass:word"), "pass:word"),
            (basic("the-token:"), "the-token"),
            (basic("the-token:x-oauth-basic"), "the-token"),
            ("Basic ???".to_owned(), "???"),
        ] {
            assert_eq!(&*of_header(&value), secret, "{value}");
        }
    }
}
