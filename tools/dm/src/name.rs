// SPDX-License-Identifier: GPL-2.0

//! Printable forms of names that aren't ASCII, for output and for command lines.
//!
//! Each byte that isn't ASCII is written as an escape, as libdm does: `\xc3\xbc`.

/// Returns the printable form of a device's name.
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        match byte {
            0..=0x7f => text.push(char::from(*byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text
}

/// Returns the name that has `name` as its printable form, or `None` if `name` has no escape of a
/// byte that isn't ASCII. Escapes of ASCII characters are left as they are: libdm gives devices
/// names that contain them.
pub(crate) fn unescaped(name: &str) -> Option<Vec<u8>> {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    let mut found = false;
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(|code| *code > 0x7f) {
            Some(code) => {
                bytes.push(code);
                bytes.extend(&part.as_bytes()[2..]);
                found = true;
            }
            None => {
                bytes.extend(b"\\x");
                bytes.extend(part.as_bytes());
            }
        }
    }
    found.then_some(bytes)
}

/// Returns whether `name` may be the printable form of a name that isn't ASCII.
pub fn is_escaped(name: &str) -> bool {
    unescaped(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_ascii_are_escaped() {
        for (name, shown) in [
            (&b"vg-lv"[..], "vg-lv"),
            (b"\xc3\xbc-1", "\\xc3\\xbc-1"),
            (b"\xff", "\\xff"),
        ] {
            assert_eq!(escaped(name), shown);
            assert_eq!(is_escaped(shown), !name.is_ascii());
            assert_eq!(unescaped(shown).unwrap_or(name.to_vec()), name);
        }
        for ordinary in ["a\\x20b", "\\x", "\\xg0", "\\x\u{fc}", ""] {
            assert!(!is_escaped(ordinary), "{ordinary}");
        }
    }
}
