//! The user who runs asmt, and the rights of that user.

/// The user who runs asmt, and the rights of that user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id, and the supplementary ones.
    pub groups: Vec<u32>,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    /// The user id that stands for every user outside of this user namespace, root of the machine
    /// among them; `None` if a user inside may have that id.
    pub unmapped_uid: Option<u32>,
}

/// The capability to give files away.
pub const CAP_CHOWN: u32 = 0;

impl Caller {
    /// Returns true if a file of this user can get this owner and group.
    pub fn can_give_to(&self, uid: u32, gid: u32) -> bool {
        self.capabilities & 1 << CAP_CHOWN != 0 || uid == self.uid && self.groups.contains(&gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_give_files_away() {
        let user = Caller { uid: 7, groups: vec![8, 9], capabilities: 0, unmapped_uid: None };
        assert!(user.can_give_to(7, 9) && !user.can_give_to(7, 10) && !user.can_give_to(0, 8));
        assert!(Caller { capabilities: 1, ..user.clone() }.can_give_to(0, 0));
        assert!(!Caller { uid: 0, groups: vec![0], ..user.clone() }.can_give_to(7, 0), "root, where it was taken away");
    }
}
