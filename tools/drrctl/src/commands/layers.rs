// SPDX-License-Identifier: GPL-2.0

//! `layers`: draws the tree of a pool's layers.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::answers::text;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::Result;

/// A layer, with the devices that are on it.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    pub serial: u64,
    pub thin_id: u64,
    pub parent: Option<u64>,
    pub created: u64,
    /// "live" or "deleted".
    pub state: &'static str,
    /// Names of the drr devices on the layer.
    pub drr_devices: Vec<String>,
    /// Names of the active thin devices with the layer's id.
    pub thin_devices: Vec<String>,
}

impl Layer {
    /// Returns whether the layer is not deleted.
    pub fn live(&self) -> bool {
        self.state == "live"
    }
}

/// The layers of a pool.
#[derive(Clone, Debug, Serialize)]
pub struct Layers {
    version: u32,
    pub pool: String,
    pub layers: Vec<Layer>,
}

impl Layers {
    /// Asks for the layers of a pool.
    pub fn collect(control: &Control, inventory: &Inventory, pool: &str) -> Result<Self> {
        let (device, answer) = inventory.tell_pool(control, pool, "layers")?;
        Ok(Self::new(inventory, pool, text::layers(&device, &answer)?))
    }

    /// Adds the names of devices to the layers of a pool.
    pub fn new(inventory: &Inventory, pool: &str, layers: Vec<text::Layer>) -> Self {
        let layers = layers
            .into_iter()
            .map(|layer| {
                // The id of a deleted layer may be another layer's by now.
                let (mut drr_devices, mut thin_devices) = (Vec::new(), Vec::new());
                if layer.live {
                    drr_devices = inventory
                        .drr_of(pool)
                        .filter(|device| device.thin_id == Some(layer.thin_id))
                        .map(|device| device.name.clone())
                        .collect();
                    thin_devices = inventory
                        .thin_names(pool, layer.thin_id)
                        .into_iter()
                        .map(str::to_string)
                        .collect();
                }
                Layer {
                    serial: layer.serial,
                    thin_id: layer.thin_id,
                    parent: layer.parent,
                    created: layer.created,
                    state: if layer.live { "live" } else { "deleted" },
                    drr_devices,
                    thin_devices,
                }
            })
            .collect();
        Self {
            version: 1,
            pool: pool.to_string(),
            layers,
        }
    }

    /// Returns a label for each layer, by its serial number: the names of its drr devices, or else
    /// of its thin devices, and its id.
    pub fn labels(&self) -> HashMap<u64, String> {
        self.layers
            .iter()
            .map(|layer| (layer.serial, layer.label()))
            .collect()
    }

    /// Draws the tree.
    pub fn draw(&self) -> String {
        let mut children: BTreeMap<Option<u64>, Vec<&Layer>> = BTreeMap::new();
        let known: HashMap<u64, &Layer> = self
            .layers
            .iter()
            .map(|layer| (layer.serial, layer))
            .collect();
        for layer in &self.layers {
            let parent = layer.parent.filter(|parent| known.contains_key(parent));
            children.entry(parent).or_default().push(layer);
        }
        let mut text = format!("{}\n", self.pool);
        // Without recursion, as a chain of layers may be ten thousand deep.
        let mut waiting: Vec<(&Layer, String, bool)> = Vec::new();
        let push = |waiting: &mut Vec<_>, parent: Option<u64>, prefix: &str| {
            let list = children.get(&parent).map_or(&[][..], |list| list);
            for (at, layer) in list.iter().enumerate().rev() {
                waiting.push((*layer, prefix.to_string(), at + 1 == list.len()));
            }
        };
        push(&mut waiting, None, "");
        while let Some((layer, prefix, is_last)) = waiting.pop() {
            let branch = if is_last { "└─ " } else { "├─ " };
            text.push_str(&format!("{prefix}{branch}{}\n", layer.describe()));
            let below = if is_last { "   " } else { "│  " };
            push(
                &mut waiting,
                Some(layer.serial),
                &format!("{prefix}{below}"),
            );
        }
        text
    }
}

impl Layer {
    fn label(&self) -> String {
        let names = match (&self.drr_devices[..], &self.thin_devices[..]) {
            ([], []) if !self.live() => "deleted".to_string(),
            ([], []) => "inactive".to_string(),
            ([], thin) => thin.join("+"),
            (drr, _) => drr.join("+"),
        };
        format!("{names} ({})", self.thin_id)
    }

    /// Returns the layer's line in the tree.
    fn describe(&self) -> String {
        let mut text = format!("{}, created at {}", self.thin_id, self.created);
        if !self.live() {
            text.push_str(", deleted");
        }
        match (&self.drr_devices[..], &self.thin_devices[..]) {
            ([], []) => {}
            ([], thin) => text.push_str(&format!(": {} (no drr)", thin.join(", "))),
            (drr, _) => text.push_str(&format!(": {}", drr.join(", "))),
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::device_mapper::inventory::tests::sample;

    fn layer(serial: u64, thin_id: u64, parent: Option<u64>, live: bool) -> text::Layer {
        text::Layer {
            serial,
            thin_id,
            parent,
            created: serial,
            live,
            devices: 0,
        }
    }

    pub fn sample_layers() -> Layers {
        let layers = vec![
            layer(1, 0, None, true),
            layer(2, 5, Some(1), false),
            layer(3, 7, Some(2), true),
            layer(4, 8, Some(1), true),
            layer(9, 20, Some(77), true),
        ];
        Layers::new(&sample(), "vg-pool-tpool", layers)
    }

    #[test]
    fn the_tree() {
        let wanted = "\
vg-pool-tpool
├─ 0, created at 1
│  ├─ 5, created at 2, deleted
│  │  └─ 7, created at 3: c2
│  └─ 8, created at 4: c10
└─ 20, created at 9
";
        assert_eq!(sample_layers().draw(), wanted);
    }

    #[test]
    fn labels() {
        let labels = sample_layers().labels();
        assert_eq!(labels[&3], "c2 (7)");
        assert_eq!(labels[&2], "deleted (5)");
        assert_eq!(labels[&1], "inactive (0)");
    }

    #[test]
    fn a_long_chain_is_drawn() {
        let layers = (1..=3000)
            .map(|serial| {
                layer(
                    serial,
                    serial,
                    serial.checked_sub(1).filter(|it| *it > 0),
                    true,
                )
            })
            .collect();
        let layers = Layers::new(&Inventory::from_nodes(Vec::new()), "p", layers);
        assert_eq!(layers.draw().lines().count(), 3001);
    }

    #[test]
    fn json_is_what_the_schema_says() {
        crate::schema::check("layers", &sample_layers());
    }
}
