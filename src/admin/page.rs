//! The admin page: files that the binary carries, open to whoever reaches the admin address, since nothing of the node is
//! in them. What they show is asked for at `/api/v1/`, with the token that the operator gives to the page.
//!
//! The token stays in the tab (`sessionStorage`) and goes out in a header. A cookie would go to whatever else listens on
//! another port of the same host, as cookies know no ports, and with requests that other sites bring about; then a
//! token would have to be had for the form as well. What a script could take from the storage only our own scripts
//! can: the policy below admits no other, no inline code and no text that becomes markup.

use super::http::Reply;

/// Of every answer of the admin address. Nothing but our own files, nothing framed, nothing submitted; and text never
/// becomes markup or code, even by mistake (Trusted Types, in browsers that have them).
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them. A new file gets its line here.
static ASSETS: [Asset; 10] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        text: include_str!("page/index.html"),
    },
    Asset {
        path: "/page/style.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("page/style.css"),
    },
    Asset {
        path: "/page/icon.svg",
        content_type: "image/svg+xml",
        text: include_str!("page/icon.svg"),
    },
    Asset { path: "/page/main.js", content_type: SCRIPT, text: include_str!("page/main.js") },
    Asset { path: "/page/cluster.js", content_type: SCRIPT, text: include_str!("page/cluster.js") },
    Asset { path: "/page/dom.js", content_type: SCRIPT, text: include_str!("page/dom.js") },
    Asset { path: "/page/units.js", content_type: SCRIPT, text: include_str!("page/units.js") },
    Asset { path: "/page/history.js", content_type: SCRIPT, text: include_str!("page/history.js") },
    Asset { path: "/page/charts.js", content_type: SCRIPT, text: include_str!("page/charts.js") },
    Asset { path: "/page/panels.js", content_type: SCRIPT, text: include_str!("page/panels.js") },
];

impl Asset {
    pub(super) fn at(path: &str) -> Option<&'static Asset> {
        ASSETS.iter().find(|asset| asset.path == path)
    }
}

impl From<&Asset> for Reply {
    fn from(asset: &Asset) -> Reply {
        Reply { content_type: asset.content_type, ..Reply::text(200, asset.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_file_names_is_there() {
        let mut named = 0;
        for asset in &ASSETS {
            for (mark, end) in
                [("src=\"", '"'), ("href=\"", '"'), ("from \"./", '"'), ("from './", '\'')]
            {
                for rest in asset.text.split(mark).skip(1) {
                    let name = rest.split(end).next().unwrap_or_default();
                    if name.starts_with('#') {
                        continue;
                    }
                    let path =
                        if name.starts_with('/') { name.into() } else { format!("/page/{name}") };
                    assert!(Asset::at(&path).is_some(), "{}: {name}", asset.path);
                    named += 1;
                }
            }
        }
        assert!(named >= ASSETS.len() - 1, "{named} names for {} files", ASSETS.len());
    }

    /// The policy would stop most of it; here it is found before a browser does.
    #[test]
    fn no_file_turns_text_into_markup_or_asks_elsewhere() {
        for asset in &ASSETS {
            for bad in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "DOMParser",
                "createContextualFragment",
                "srcdoc",
                "setHTMLUnsafe",
                "javascript:",
                "https://",
                "url(",
                "@import",
                "localStorage",
                "document.cookie",
                " onclick",
                " onload",
                " onerror",
                "style=\"",
                "<style",
            ] {
                assert!(!asset.text.contains(bad), "{} has {bad}", asset.path);
            }
            // The one name that looks like an address.
            let without = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!without.contains("http:"), "{}", asset.path);
            assert!(!without.contains("<script>"), "{}", asset.path);
        }
    }
}
