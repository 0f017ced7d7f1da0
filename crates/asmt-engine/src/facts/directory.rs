//! What was found of the path of a backup directory, as plain values.
//!
//! Invariant: nothing here calls the system; `store/above.rs` looks, `plan.rs` judges.

/// A directory above the backup directory, or one that holds a symbolic link on its path; or such a
/// link itself. Whoever may change it can put another directory at the path. What is root's and no
/// one else may write is not among the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Its path, for messages.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Permission bits, with the sticky bit.
    pub mode: u32,
    /// What it is.
    pub kind: StepKind,
}

/// What stands at a step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A directory.
    Directory,
    /// A symbolic link: its owner may exchange it where others may write in its directory.
    Link {
        /// Others than root and the link's owner may write in its directory, which is sticky.
        is_in_shared: bool,
    },
}
