//! A packet as bytes behind an Ethernet header: what the classifiers' buffers and XDP's frames have
//! in common.
//!
//! Of a buffer bytes are moved by helpers, so that no header need be in its linear part. A frame is
//! in one piece, and read and written in place.

use core::{ffi::c_void, hint::black_box, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::XdpContext,
};
use podium_proxy_ebpf::checksum;

use crate::scratch::copy;

/// Where the network header begins.
pub const L3: u32 = 14;

/// Beyond this no header begins.
const OFFSET_MAX: u32 = 0x3fff;

/// `ETH_P_IP` and `ETH_P_IPV6`.
pub const ETHERTYPE_V4: u16 = 0x0800;
pub const ETHERTYPE_V6: u16 = 0x86dd;

/// Flags of `bpf_l4_csum_replace`, from `linux/bpf.h`.
const PSEUDO_HEADER: u64 = 1 << 4;
const ZERO_MEANS_NONE: u64 = 1 << 5;
const IS_V6: u64 = 1 << 7;

/// What a transport checksum covers besides its own segment, and how none looks.
#[derive(Clone, Copy)]
pub struct ChecksumKind {
    /// The addresses are those of IPv6.
    pub v6: bool,
    /// UDP's, where zero means that there is none.
    pub udp: bool,
}

/// A packet at a hook.
pub trait Frame {
    /// The hook's context, for helpers.
    fn context(&self) -> *mut c_void;

    /// The device the packet came in through, at egress the one it leaves by.
    fn ifindex(&self) -> u32;

    /// The type in the Ethernet header; `None` for a packet of a VLAN, which has a device of its own.
    fn ethertype(&self) -> Option<u16>;

    /// Bytes from the Ethernet header on.
    fn len(&self) -> u32;

    /// Whether it was joined from several packets.
    fn is_joined(&self) -> bool;

    /// Lets a TCP or UDP checksum follow a change of the addresses and one of the bytes it covers.
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool;

    /// Whether a transport checksum is left for the device to complete.
    fn is_left_to_device(&self, offset: u32) -> bool;

    /// Bytes at an offset, if there are as many.
    fn load<T: Copy>(&self, offset: u32) -> Option<T>;

    /// Puts bytes at an offset, with no look at checksums; `false`, if there are not as many.
    fn store<T: Copy>(&self, offset: u32, value: &T) -> bool;
}

/// A socket buffer.
pub struct Buffer {
    pub skb: *mut __sk_buff,
}

impl Buffer {
    /// Whether the frame is addressed to this machine alone: a device may show others', too.
    #[inline(always)]
    pub fn is_for_us(&self) -> bool {
        /// `PACKET_HOST`.
        const HOST: u32 = 0;
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).pkt_type == HOST }
    }

    /// Bytes of data in each packet that this one was joined from; 0 for one that is what it is.
    #[inline(always)]
    pub fn segment_len(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).gso_size }
    }

    /// Whether the device shall complete the transport checksum, of whose segment only the sum of
    /// the pseudo header is there: then a helper that is told of changed bytes leaves it alone.
    #[inline(always)]
    pub fn is_partial(&self, offset: u32) -> Option<bool> {
        let before: [u8; 2] = self.load(offset)?;
        self.replace(offset, 1, 0);
        let after: [u8; 2] = self.load(offset)?;
        if before == after {
            return Some(true);
        }
        self.store(offset, &before).then_some(false)
    }

    #[inline(always)]
    fn replace(&self, offset: u32, difference: u32, flags: u64) -> bool {
        // SAFETY: the helper takes this hook's context; size 0 means that `to` is a difference.
        unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(difference), flags) == 0 }
    }

    /// Lets a checksum follow a change of the bytes that it covers.
    #[inline(always)]
    pub fn follow_bytes(&self, offset: u32, difference: u32) -> bool {
        self.replace(offset, difference, 0)
    }

    /// Lets a checksum follow a change of the pseudo header.
    #[inline(always)]
    pub fn follow_addresses(&self, offset: u32, difference: u32, kind: ChecksumKind) -> bool {
        let flags = PSEUDO_HEADER | if kind.udp { ZERO_MEANS_NONE } else { 0 };
        // Kernels before 6.16 do not know the flag, and account for IPv6 as for IPv4.
        (kind.v6 && self.replace(offset, difference, flags | IS_V6))
            || self.replace(offset, difference, flags)
    }
}

impl Frame for Buffer {
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        // SAFETY: the context is valid for the length of the program.
        let tagged = unsafe { (*self.skb).vlan_present };
        // SAFETY: as above.
        let tag = unsafe { (*self.skb).vlan_tci };
        // Tag 0 only carries a priority; the kernel takes such a packet as its device's own.
        if tagged != 0 && tag & 0xfff != 0 {
            return None;
        }
        // SAFETY: the context is valid for the length of the program.
        let protocol = unsafe { (*self.skb).protocol };
        Some(u16::from_be(protocol as u16))
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        self.segment_len() != 0
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let (to, len) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
        // SAFETY: room for exactly these bytes.
        let done = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to, len) == 0 };
        // SAFETY: filled, and only plain bytes are loaded.
        done.then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T: Copy>(&self, offset: u32, value: &T) -> bool {
        let (from, len) = (ptr::from_ref(value).cast(), size_of::<T>() as u32);
        // SAFETY: a whole value.
        unsafe { bpf_skb_store_bytes(self.skb, offset, from, len, 0) == 0 }
    }

    #[inline(always)]
    fn is_left_to_device(&self, offset: u32) -> bool {
        self.is_partial(offset) == Some(true)
    }

    #[inline(always)]
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool {
        let none = if kind.udp { ZERO_MEANS_NONE } else { 0 };
        (bytes == 0 || self.replace(offset, bytes, none))
            && self.follow_addresses(offset, addresses, kind)
    }
}

/// A frame as the driver received it.
pub struct Received {
    pub context: XdpContext,
}

impl Received {
    /// Bytes of the frame, which is in one piece for a program that has not said it takes others.
    #[inline(always)]
    fn bytes<T>(&self, offset: u32) -> Option<*mut T> {
        // More than the verifier wants to hear of.
        if offset > OFFSET_MAX {
            return None;
        }
        // What the verifier learns from a comparison holds for the address that was compared, so it
        // must not be computed anew.
        let at = black_box(self.context.data() + offset as usize);
        if at + size_of::<T>() > self.context.data_end() { None } else { Some(at as *mut T) }
    }
}

impl Frame for Received {
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.ctx.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        // A tag in the frame is a type of its own, which nobody here serves.
        self.load::<u16>(12).map(u16::from_be)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.context.data_end() - self.context.data()) as u32
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        false
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        // SAFETY: within the frame, and only plain bytes are loaded. A machine that runs these
        // programs loads from any address; told that it may be odd, the compiler would have them
        // go byte by byte.
        self.bytes::<T>(offset).map(|bytes| unsafe { bytes.read() })
    }

    #[inline(always)]
    fn store<T: Copy>(&self, offset: u32, value: &T) -> bool {
        // SAFETY: within the frame, and nothing else refers to it; as for loads.
        self.bytes::<T>(offset).map(|bytes| copy(unsafe { &mut *bytes }, value)).is_some()
    }

    #[inline(always)]
    fn is_left_to_device(&self, _offset: u32) -> bool {
        false
    }

    #[inline(always)]
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool {
        let Some(old) = self.load::<u16>(offset) else { return false };
        if kind.udp && old == 0 {
            return true;
        }
        let new = checksum::apply(old.to_ne_bytes(), checksum::join(addresses, bytes));
        let new = u16::from_ne_bytes(new);
        self.store(offset, &if kind.udp && new == 0 { u16::MAX } else { new })
    }
}
