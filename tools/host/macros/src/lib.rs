// SPDX-License-Identifier: GPL-2.0

//! The kernel crate's attributes, as far as the pure sources use them.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// KUnit cases are ordinary tests here.
#[proc_macro_attribute]
pub fn kunit_tests(_name: TokenStream, module: TokenStream) -> TokenStream {
    let mut tokens: TokenStream = "#[cfg(all(test, not(loom)))]"
        .parse()
        .expect("an attribute");
    tokens.extend(module);
    tokens
}

/// Nothing is pinned here: takes the fields' `#[pin]` away.
#[proc_macro_attribute]
pub fn pin_data(_args: TokenStream, item: TokenStream) -> TokenStream {
    item.into_iter()
        .map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                Group::new(Delimiter::Brace, without_pin(group.stream())).into()
            }
            other => other,
        })
        .collect()
}

fn without_pin(fields: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    for token in fields {
        let is_pin = matches!(&token, TokenTree::Group(group) if group.to_string() == "[pin]");
        if is_pin {
            // the number sign before it
            kept.pop();
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}
