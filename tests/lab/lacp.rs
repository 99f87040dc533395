//! The switch's side of a link aggregation (IEEE 802.1AX, LACP): it wants whatever its partner wants.

const SLOW_PROTOCOLS: [u8; 2] = [0x88, 0x09];
const LACP: u8 = 1;
/// Destination, source, type, subtype, version, then the actor's TLV, the partner's, the collector's and an end.
const LENGTH: usize = 124;
const SOURCE: std::ops::Range<usize> = 6..12;
/// Both TLVs hold the same: system priority and address, key, port priority and number, state.
const ACTOR: std::ops::Range<usize> = 18..33;
const PARTNER: std::ops::Range<usize> = 38..53;
const SWITCH: [u8; 6] = [0x02, 0, 0, 0, 0x5a, 0x01];
/// Active, fast, may aggregate, in sync, collecting, distributing (clause 6.4.2.3).
const STATE: u8 = 0x3f;

/// What port `number` of the switch says to this frame, if it is an LACPDU.
pub fn answer(frame: &[u8], number: u16) -> Option<Vec<u8>> {
    if frame.len() < LENGTH || frame[12..14] != SLOW_PROTOCOLS || frame[14] != LACP {
        return None;
    }
    let mut answer = frame.to_vec();
    answer[SOURCE].copy_from_slice(&SWITCH);
    answer[PARTNER].copy_from_slice(&frame[ACTOR]);
    let [high, low] = number.to_be_bytes();
    let ours = [
        &[0x80, 0],
        SWITCH.as_slice(),
        &[0, 1, 0, 0x80, high, low, STATE],
    ]
    .concat();
    answer[ACTOR].copy_from_slice(&ours);
    Some(answer)
}
