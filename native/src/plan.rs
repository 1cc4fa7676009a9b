//! The plan as Python compiled it (MessagePack maps). Unknown fields are refused: both sides ship together.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Namespaces to make: CLONE_NEW* flags.
    pub namespaces: i32,
    /// The network namespace is one that the spawner made ahead, for one box alone.
    pub spare_network: bool,
    /// No namespaces and no root of its own: Landlock and the filters alone stand between a command and the host.
    pub bare: bool,
    /// The user and group in the box that own the user's mounts, and that commands run as by default.
    pub user: u32,
    pub group: u32,
    pub template_key: serde_bytes::ByteBuf,
    pub template: Vec<TemplateOp>,
    pub root: Vec<RootOp>,
    pub landlock: Option<Landlock>,
    pub command: CommandStage,
    pub cgroup: Vec<CgroupLimit>,
}

/// One step of building the image that boxes of a plan share; paths are relative to its root.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum TemplateOp {
    Dir { path: String, mode: u32 },
    Link { path: String, target: String },
    File { path: String, mode: u32, data: serde_bytes::ByteBuf },
    Copy { path: String, source: String, mode: u32 },
    Bind { path: String, source: String, attributes: u64, follow: bool },
    Device { path: String, mode: u32, major: u32, minor: u32 },
}

/// One step of making a box's own root, on top of the image.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum RootOp {
    /// `flags` are those of mount(2), `options` its data.
    Mount {
        kind: String,
        path: String,
        options: String,
        flags: u64,
    },
    /// One tmpfs whose folders stand at several paths, so that they share its size.
    Private {
        options: String,
        flags: u64,
        folders: Vec<Folder>,
    },
    /// In a machine: the same on a disk of its own, by the name of its device.
    Disk {
        device: String,
        kind: String,
        options: String,
        flags: u64,
        folders: Vec<Folder>,
    },
    /// One more folder of the private space.
    Share {
        path: String,
        name: String,
        mode: u32,
    },
    Dir {
        path: String,
        mode: u32,
    },
    File {
        path: String,
    },
    Hide {
        path: String,
        cover: String,
    },
    Freeze {
        path: String,
        attributes: u64,
    },
    /// The next of the sources that come with the request.
    UserMount {
        source: String,
        path: String,
        attributes: u64,
        /// The box's id 0 makes files here too, as nobody of the host, and gives them to the user.
        #[serde(default)]
        root_too: bool,
    },
    /// In a machine: what its second disk has of a mount's source.
    Show {
        source: String,
        path: String,
        attributes: u64,
        /// Where it can be written: a folder in which what is below and what is written above it are shown, read-only.
        #[serde(default)]
        changes: Option<String>,
    },
    Hostname {
        name: String,
    },
    Loopback {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    pub path: String,
    pub name: String,
    pub mode: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Landlock {
    pub handled_fs: u64,
    pub handled_net: u64,
    pub scoped: u64,
    pub rules: Vec<LandlockRule>,
    /// A file that no rule covers: it opens before the domain is entered and must not afterwards.
    pub sentinel: String,
    /// For a kernel that nobody has asked: what each ABI that will do knows, in rising order. Else it is this host's.
    #[serde(default)]
    pub abis: Vec<LandlockAbi>,
    /// A kernel with none of them does without.
    #[serde(default)]
    pub optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockAbi {
    pub abi: u32,
    pub handled_fs: u64,
    pub scoped: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockRule {
    pub path: String,
    pub access: u64,
}

/// The last stage of every command, before its execve.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStage {
    pub rlimits: Vec<(u32, u64, u64)>,
    pub known_capabilities: u64,
    pub keep_capabilities: u64,
    pub securebits: u64,
    pub umask: u32,
    /// Programs of packed `struct sock_filter`s, in the order of installation.
    pub filters: Vec<serde_bytes::ByteBuf>,
    /// How many of them the stem installs, once, since they leave it what it needs; each command installs the others.
    pub inherited_filters: usize,
    /// The next command's process may bear the others before there is a command.
    #[serde(default)]
    pub ahead: bool,
    /// Flags of seccomp(2) for the last filter where it asks a supervisor, else 0. Its listener goes to the asker.
    pub listener_flags: u32,
}

/// What a guest is told before its first command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPlan {
    /// What its root is to have beside its image, before anything else is there: `Dir`, `Link` and `File`.
    #[serde(default)]
    pub image: Vec<TemplateOp>,
    /// Carried out once, by the guest as root of its box: `Mount`, `Private`, `Disk`, `Share`, `Dir`, `File`, `Show` and
    /// `Hostname`.
    #[serde(default)]
    pub root: Vec<RootOp>,
    /// Where the box's kernel knows one id alone, which is to have these names for commands.
    #[serde(default)]
    pub own_ids: Option<OwnIds>,
    /// What the guest becomes, capabilities and all, so that no command has its id.
    #[serde(default)]
    pub own_id: Option<u32>,
    /// Where the box is a machine of its own.
    #[serde(default)]
    pub moment: Option<Moment>,
    pub command: CommandStage,
    pub landlock: Option<Landlock>,
    /// Commands are to have no groups beside their own, which takes CAP_SETGID.
    pub drop_groups: bool,
}

/// What a machine is told of the world that it wakes up in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Since 1970.
    pub time_ns: u64,
    pub entropy: serde_bytes::ByteBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnIds {
    pub user: u32,
    pub group: u32,
}

/// A file to write in the box's cgroup, which is made in `parent`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimit {
    pub parent: String,
    pub file: String,
    pub value: String,
}

/// How the spawner itself is to run; the first message that it gets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Plain user: a user namespace of the spawner's own is needed first.
    pub rootless: bool,
    /// Make no namespaces at all; this host refuses them.
    pub bare: bool,
    /// Stay in the host's network: boxes of this spawner share it.
    pub host_network: bool,
    pub caller_uid: u32,
    pub caller_gid: u32,
    pub ids: IdSource,
    pub cgroups: Vec<CgroupParent>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum IdSource {
    /// Boxes map one id: the caller's.
    Single {},
    /// Boxes map `size` ids each, out of `slots` ranges. `newuidmap` and `newgidmap` are None as root.
    Ranges {
        base_uid: u32,
        base_gid: u32,
        size: u32,
        slots: u32,
        newuidmap: Option<String>,
        newgidmap: Option<String>,
    },
}

/// Where boxes' cgroups are made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupParent {
    pub path: String,
    pub version: u8,
    /// Controllers that it has been given and does not pass on yet.
    pub switch_on: Vec<String>,
}
