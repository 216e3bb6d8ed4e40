//! The file store of Prosody ("internal" storage): a folder for each host, in it one for each kind of data, in it a file
//! for each user. Names are percent-encoded. Read while Prosody is stopped, or what it writes meanwhile may be missed.

mod lua;
mod stanza;
mod user;

use super::{Folders, NameKind, Place, Sink, Stop};
use crate::base::percent;
use crate::xmpp::jid::BareJid;

/// Kinds of data that are read, and those in which there is nothing to take over.
const READ: &[&str] =
    &["accounts", "roster", "vcard", "private", "offline", "blocklist", "archive", "pep"];
const OF_NO_USE: &[&str] = &["archive_cleanup", "cron", "lastlog", "uptime"];

/// Reads the data directory of a Prosody and tells the sink, host by host and user by user.
///
/// - errors: the sink's; the folder cannot be read, or holds no accounts
pub fn read(folders: &mut dyn Folders, sink: &mut dyn Sink) -> Result<(), Stop> {
    let whole = |folders: &dyn Folders, cause| Stop(format!("{}: {cause}", folders.shown(&[])));
    let hosts = folders.names(&[], NameKind::Folder).map_err(|cause| whole(folders, cause))?;
    let mut is_store = false;
    for host in &hosts {
        let stores =
            folders.names(&[host], NameKind::Folder).map_err(|cause| whole(folders, cause))?;
        if !stores.iter().any(|store| store == "accounts") {
            for store in &stores {
                let files = count(folders, host, store);
                let shown = percent::decoded(host).unwrap_or_else(|| host.clone());
                sink.left_out(
                    &format!("files of {store} of {shown}, which has no accounts"),
                    files,
                )?;
            }
            continue;
        }
        is_store = true;
        read_host(folders, host, &stores, sink)?;
    }
    match is_store {
        true => Ok(()),
        false => Err(whole(
            folders,
            "holds no folder with accounts; give the data_path of a Prosody with internal storage, as in /var/lib/prosody"
                .to_owned(),
        )),
    }
}

fn read_host(
    folders: &mut dyn Folders,
    host: &str,
    stores: &[String],
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    let place = Place { file: folders.shown(&[host]), line: 0 };
    let domain = percent::decoded(host).and_then(|text| BareJid::parse(&text).ok());
    let Some(domain) = domain.filter(|jid| jid.local().is_none()) else {
        return sink.faulty("its name is no domain; nothing of it is imported", &place);
    };
    for store in stores {
        // The items of PEP nodes: a folder for each node.
        let kind = match store.strip_prefix("pep_") {
            Some(_) => "PEP items".to_owned(),
            None if READ.contains(&store.as_str()) || OF_NO_USE.contains(&store.as_str()) => {
                continue;
            }
            None => format!("files of {store}"),
        };
        let number = match store.starts_with("pep_") {
            true => items(folders, host, store),
            false => count(folders, host, store),
        };
        sink.left_out(&kind, number)?;
    }
    let names = folders.names(&[host, "accounts"], NameKind::File);
    let names = names.map_err(|cause| Stop(format!("{place}: {cause}")))?;
    for file in names {
        let Some(name) = file.strip_suffix(".dat") else { continue };
        let place = Place { file: folders.shown(&[host, "accounts", &file]), line: 0 };
        let jid =
            percent::decoded(name).map(|local| BareJid::from_parts(Some(&local), domain.domain()));
        let jid = match jid {
            Some(Ok(jid)) => jid,
            Some(Err(fault)) => {
                sink.faulty(&format!("not imported: {fault}"), &place)?;
                continue;
            }
            None => {
                sink.faulty("not imported: its name is not encoded as Prosody does", &place)?;
                continue;
            }
        };
        user::read(folders, host, name, jid, &place, sink)?;
    }
    Ok(())
}

fn count(folders: &mut dyn Folders, host: &str, store: &str) -> u64 {
    folders.names(&[host, store], NameKind::File).map_or(0, |names| names.len() as u64)
}

/// Items in the lists of a store.
fn items(folders: &mut dyn Folders, host: &str, store: &str) -> u64 {
    let mut number = 0;
    for name in folders.names(&[host, store], NameKind::File).unwrap_or_default() {
        let Ok(Some(input)) = folders.open(&[host, store, &name]) else { continue };
        let mut list = lua::Lua::new(input);
        while let Ok(Some(_)) = list.item() {
            number += 1;
        }
    }
    number
}
