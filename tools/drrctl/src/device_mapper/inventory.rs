// SPDX-License-Identifier: GPL-2.0

//! The inventory of device-mapper devices, and how they are stacked: drr devices on thin devices of
//! pools.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use drr_dm::{Device, Line, Number};

use crate::answers::status::Status;
use crate::answers::table::{self, DrrTable};
use crate::device_mapper::control::{not_loaded, Control};
use crate::device_mapper::runtime;
use crate::error::{Code, Error, Result};

/// Prefix of the UUIDs of second devices, the thin devices below those that drr is attached to. The
/// disk sequence number of the device above and another number follow.
pub const SECOND: &str = "DRR-";

/// A device-mapper device with its table.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// The number as tables have it: major:minor.
    pub number: String,
    pub uuid: String,
    pub table: Vec<Line>,
}

/// Describes a table for messages: by the name of its only target, or as one without or with
/// several targets.
pub fn kind(table: &[Line]) -> &str {
    match table {
        [] => "device without a table",
        [line] => &line.target,
        _ => "device of several targets",
    }
}

impl Node {
    fn kind(&self) -> &str {
        kind(&self.table)
    }

    /// Returns whether this is a second device, which only drrctl uses.
    fn is_second(&self) -> bool {
        self.uuid.starts_with(SECOND)
    }

    /// Returns the arguments of the only target, if it is a `target`.
    fn arguments(&self, target: &str) -> Option<&str> {
        match &self.table[..] {
            [line] if line.target == target => Some(&line.arguments),
            _ => None,
        }
    }
}

/// A drr device.
#[derive(Clone, Debug)]
pub struct DrrDevice {
    pub name: String,
    pub number: String,
    pub sectors: u64,
    pub table: DrrTable,
    /// Name of the thin device below; `None` if it isn't there.
    pub thin: Option<String>,
    pub thin_id: Option<u64>,
    /// Name of the pool; `None` if it isn't there.
    pub pool: Option<String>,
    /// Whether drr was put under a thin device by `attach`, and not on top of one.
    pub attached: bool,
}

/// All device-mapper devices, and those of them that are drr devices.
pub struct Inventory {
    pub nodes: Vec<Node>,
    pub drr: Vec<DrrDevice>,
}

impl Inventory {
    /// Asks for all devices. Fails with [`Code::NotLoaded`] if dm-drr isn't loaded.
    pub fn new(control: &Control) -> Result<Self> {
        let inventory = Self::all(control)?;
        if inventory.drr.is_empty() && !control.drr_loaded()? {
            return Err(not_loaded());
        }
        Ok(inventory)
    }

    /// Asks for all devices, whether dm-drr is loaded or not.
    pub fn all(control: &Control) -> Result<Self> {
        let mut nodes = Vec::new();
        for (name, (major, minor)) in control.devices()? {
            // The device may have gone meanwhile.
            let Ok(device) = control.device(&name) else {
                continue;
            };
            nodes.push(Node {
                name,
                number: format!("{major}:{minor}"),
                uuid: device.uuid,
                table: device.table,
            });
        }
        Ok(Self::from_nodes(nodes))
    }

    /// Sorts devices by their names, and finds the drr devices among them.
    pub fn from_nodes(mut nodes: Vec<Node>) -> Self {
        nodes.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
        let numbered = |number: &str| nodes.iter().find(|node| node.number == number);
        let mut drr = Vec::new();
        for node in &nodes {
            let Some(table) = node.arguments("drr").and_then(table::drr) else {
                continue;
            };
            let thin = numbered(&table.thin);
            let of_thin = thin
                .and_then(|thin| thin.arguments("thin"))
                .and_then(table::thin);
            drr.push(DrrDevice {
                name: node.name.clone(),
                number: node.number.clone(),
                sectors: node.table[0].length,
                thin: thin.map(|thin| thin.name.clone()),
                thin_id: of_thin.as_ref().map(|(_, id)| *id),
                pool: of_thin
                    .and_then(|(pool, _)| numbered(&pool))
                    .map(|pool| pool.name.clone()),
                attached: thin.is_some_and(Node::is_second),
                table,
            });
        }
        Self { nodes, drr }
    }

    /// Returns a device by its name, or by the path of its node or of a link to its node. Fails
    /// with [`Code::NotThere`], or with [`Code::WrongKind`] if the path is that of something else.
    pub fn find(&self, text: &str) -> Result<&Node> {
        let mangled = mangled(text);
        for name in [text, &mangled] {
            if let Some(node) = self.nodes.iter().find(|node| node.name == name) {
                return Ok(node);
            }
        }
        if let Some((major, minor)) = number_at(text) {
            let number = format!("{major}:{minor}");
            if let Some(node) = self.nodes.iter().find(|node| node.number == number) {
                return Ok(node);
            }
        }
        Err(not_found(text))
    }

    /// Returns a drr device, as [`Self::find`] does. Fails with [`Code::WrongKind`] for others.
    pub fn find_drr(&self, text: &str) -> Result<&DrrDevice> {
        let node = self.find(text)?;
        self.drr
            .iter()
            .find(|device| device.name == node.name)
            .ok_or_else(|| {
                Error::new(
                    Code::WrongKind,
                    text,
                    format!("is not a drr device, but a {}", node.kind()),
                    "'drrctl list' shows the drr devices",
                )
            })
    }

    /// Returns a thin device, as [`Self::find`] does, and its length in sectors. Fails with
    /// [`Code::WrongKind`] for others, and for second devices.
    pub fn find_thin(&self, text: &str) -> Result<(&Node, u64)> {
        let node = self.find(text)?;
        match &node.table[..] {
            _ if node.is_second() => Err(Error::new(
                Code::WrongKind,
                text,
                "is the thin device below an attached one",
                "name that one: 'drrctl list' shows it",
            )),
            [line] if line.target == "thin" => Ok((node, line.length)),
            _ => Err(Error::new(
                Code::WrongKind,
                text,
                format!("is not a thin device, but a {}", node.kind()),
                "name an active thin device: 'dmsetup ls --target thin' shows them",
            )),
        }
    }

    /// Returns the names of the pools that have drr devices.
    pub fn pools(&self) -> Vec<&str> {
        let mut pools: Vec<_> = self
            .drr
            .iter()
            .filter_map(|device| device.pool.as_deref())
            .collect();
        pools.sort_unstable();
        pools.dedup();
        pools
    }

    /// Returns the name of the pool that the user means: the only one with drr devices if none was
    /// named.
    pub fn pool(&self, text: Option<&str>) -> Result<String> {
        if let Some(text) = text {
            let mut node = self.find(text)?;
            // The device that LVM calls the pool is a linear device on the pool.
            if let Some(arguments) = node.arguments("linear") {
                let below = arguments.split(' ').next().unwrap_or_default();
                node = self
                    .nodes
                    .iter()
                    .find(|node| node.number == below)
                    .unwrap_or(node);
            }
            if node.arguments("thin-pool").is_none() {
                return Err(Error::new(
                    Code::WrongKind,
                    text,
                    format!("is not a pool, but a {}", node.kind()),
                    "name a thin pool: 'drrctl list' shows them",
                ));
            }
            if !self.pools().contains(&node.name.as_str()) {
                return Err(Error::new(
                    Code::NotThere,
                    text,
                    "no drr device is on a thin device of this pool",
                    "make one: drrctl create NAME THIN-DEVICE",
                ));
            }
            return Ok(node.name.clone());
        }
        match self.pools()[..] {
            [] => Err(Error::new(
                Code::NotThere,
                "pool",
                "there is no drr device",
                "make one: drrctl create NAME THIN-DEVICE",
            )),
            [pool] => Ok(pool.to_string()),
            ref pools => Err(Error::new(
                Code::Usage,
                "pool",
                format!("several have drr devices: {}", pools.join(", ")),
                "name one of them",
            )),
        }
    }

    /// Returns the drr devices of a pool.
    pub fn drr_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a DrrDevice> {
        self.drr
            .iter()
            .filter(move |device| device.pool.as_deref() == Some(pool))
    }

    /// Sends a message that concerns a whole pool to one of its drr devices, and returns the
    /// device's name and answer. Tries the next device if one has gone meanwhile.
    pub fn tell_pool(
        &self,
        control: &Control,
        pool: &str,
        message: &str,
    ) -> Result<(String, String)> {
        let mut last = None;
        for device in self.drr_of(pool) {
            match control.message(&device.name, message) {
                Ok(answer) => return Ok((device.name.clone(), answer.unwrap_or_default())),
                Err(error) if error.code == Code::NotThere => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(
                Code::NotThere,
                pool,
                "no drr device is on a thin device of this pool",
                "make one: drrctl create NAME THIN-DEVICE",
            )
        }))
    }

    /// Returns the names of the active thin devices of a pool that have this id, except second
    /// devices.
    pub fn thin_names(&self, pool: &str, thin_id: u64) -> Vec<&str> {
        let Some(pool) = self.nodes.iter().find(|node| node.name == pool) else {
            return Vec::new();
        };
        self.nodes
            .iter()
            .filter(|node| {
                !node.is_second()
                    && node.arguments("thin").and_then(table::thin)
                        == Some((pool.number.clone(), thin_id))
            })
            .map(|node| node.name.as_str())
            .collect()
    }
}

/// Returns the number of the block device at a path.
fn number_at(path: &str) -> Option<Number> {
    let meta = fs::metadata(path).ok()?;
    meta.file_type()
        .is_block_device()
        .then(|| (libc::major(meta.rdev()), libc::minor(meta.rdev())))
}

/// Returns the error for a device that wasn't found.
fn not_found(text: &str) -> Error {
    let (code, why) = if text.contains('/') && Path::new(text).exists() {
        (Code::WrongKind, "is no device-mapper device")
    } else {
        (Code::NotThere, "there is no such device-mapper device")
    };
    Error::new(
        code,
        text,
        why,
        "'drrctl list' shows the drr devices, 'dmsetup ls' all",
    )
}

/// Returns a device by its name, or by the path of its node or of a link to its node, without
/// asking for all others.
pub fn device(control: &Control, text: &str) -> Result<Device> {
    let at_path = number_at(text).and_then(runtime::name);
    for name in [Some(text.to_string()), Some(mangled(text)), at_path] {
        match name.map(|name| control.device(&name)) {
            None => {}
            // The text may be no name, but a path.
            Some(Err(error)) if matches!(error.code, Code::NotThere | Code::Usage) => {}
            Some(device) => return device,
        }
    }
    Err(not_found(text))
}

/// Returns the status of a drr device; `None` if the device has gone, or has another table, by now.
pub fn status_of(control: &Control, name: &str) -> Result<Option<Status>> {
    let lines = match control.status(name) {
        Err(error) if error.code == Code::NotThere => return Ok(None),
        lines => lines?,
    };
    match &lines[..] {
        [line] if line.target == "drr" => Status::new(name, &line.arguments).map(Some),
        _ => Ok(None),
    }
}

/// Returns the name that libdevmapper gives a device that is to be called `name`, with escapes for
/// characters that udev can't handle.
fn mangled(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(byte.into()),
            b'#' | b'+' | b'-' | b'.' | b':' | b'=' | b'@' | b'_' => text.push(byte.into()),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// Returns a key that sorts c2 before c10.
pub fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let (mut word, mut digits) = (String::new(), String::new());
    for c in name.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
        } else {
            if !digits.is_empty() {
                parts.push((
                    std::mem::take(&mut word),
                    digits.parse().unwrap_or(u64::MAX),
                ));
                digits.clear();
            }
            word.push(c);
        }
    }
    parts.push((word, digits.parse().unwrap_or(0)));
    parts
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn node(name: &str, number: &str, target: &str, arguments: &str) -> Node {
        Node {
            name: name.into(),
            number: number.into(),
            uuid: String::new(),
            table: vec![Line {
                start: 0,
                length: 2048,
                target: target.into(),
                arguments: arguments.into(),
            }],
        }
    }

    pub fn sample() -> Inventory {
        Inventory::from_nodes(vec![
            node("c10", "253:5", "drr", "253:4"),
            node("c2", "253:6", "drr", "253:3 1 no_donate"),
            node("t2", "253:3", "thin", "253:1 7"),
            node("t10", "253:4", "thin", "253:1 8"),
            node("vg-pool-tpool", "253:1", "thin-pool", "253:8 253:9 128 0"),
            node("vg-pool", "253:2", "linear", "253:1 0"),
        ])
    }

    #[test]
    fn devices_are_put_together() {
        let inventory = sample();
        let names: Vec<_> = inventory.drr.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["c2", "c10"]);
        assert_eq!(inventory.drr[0].thin.as_deref(), Some("t2"));
        assert_eq!(inventory.drr[0].thin_id, Some(7));
        assert_eq!(inventory.drr[0].pool.as_deref(), Some("vg-pool-tpool"));
        assert_eq!(inventory.thin_names("vg-pool-tpool", 8), ["t10"]);
        assert_eq!(inventory.drr_of("vg-pool-tpool").count(), 2);
    }

    #[test]
    fn attached_ones_are_themselves() {
        let mut nodes = sample().nodes;
        let mut second = node("drr-c3-1.0", "253:30", "thin", "253:1 9");
        second.uuid = "DRR-1-0".into();
        nodes.push(second);
        nodes.push(node("c3", "253:31", "drr", "253:30"));
        let inventory = Inventory::from_nodes(nodes);
        let c3 = inventory.find_drr("c3").expect("a drr device");
        assert!(c3.attached);
        assert_eq!(
            (c3.thin_id, c3.pool.as_deref()),
            (Some(9), Some("vg-pool-tpool"))
        );
        assert!(inventory.thin_names("vg-pool-tpool", 9).is_empty());
        assert!(inventory.find_thin("drr-c3-1.0").is_err());
        assert!(!inventory.drr[0].attached);
    }

    #[test]
    fn mangled_names_are_found() {
        assert_eq!(mangled("a-1_x.y@z"), "a-1_x.y@z");
        assert_eq!(mangled("my dev"), "my\\x20dev");
        let nodes = vec![node("my\\x20dev", "253:3", "thin", "253:1 7")];
        let inventory = Inventory::from_nodes(nodes);
        assert!(inventory.find("my dev").is_ok());
        assert!(inventory.find("my\\x20dev").is_ok());
    }

    #[test]
    fn the_pool_is_found() {
        let inventory = sample();
        for text in [None, Some("vg-pool-tpool"), Some("vg-pool")] {
            assert_eq!(inventory.pool(text).expect("a pool"), "vg-pool-tpool");
        }
        let code = |text| inventory.pool(Some(text)).err().map(|error| error.code);
        assert_eq!(code("t2"), Some(Code::WrongKind));
        assert_eq!(code("nowhere"), Some(Code::NotThere));
        let empty = Inventory::from_nodes(Vec::new());
        assert_eq!(
            empty.pool(None).err().map(|it| it.code),
            Some(Code::NotThere)
        );
    }

    #[test]
    fn kinds_are_checked() {
        let inventory = sample();
        assert!(inventory.find_drr("c2").is_ok());
        let error = inventory.find_drr("t2").err().map(|it| it.to_string());
        assert!(error.unwrap_or_default().contains("but a thin"));
        assert!(inventory.find_thin("t2").is_ok());
        assert!(inventory.find_thin("c2").is_err());
        assert_eq!(
            inventory.find("/dev/null").err().map(|it| it.code),
            Some(Code::WrongKind)
        );
    }

    #[test]
    fn several_pools_have_to_be_named() {
        let mut nodes = sample().nodes;
        nodes.push(node("p2", "253:20", "thin-pool", ""));
        nodes.push(node("t", "253:21", "thin", "253:20 0"));
        nodes.push(node("c", "253:22", "drr", "253:21"));
        let error = Inventory::from_nodes(nodes).pool(None).err();
        let error = error.map(|it| it.to_string()).unwrap_or_default();
        assert!(error.contains("p2, vg-pool-tpool"), "{error}");
    }
}
