/**
 * Links and file requests between a second implementation and the embedded server with the built command line: what one makes,
 * the other opens, in both directions, encrypted and plain.
 * @module
 */
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import { clean, cliOf, content, expectSame, test, title, world } from './peer.ts'

const KEY_PASSWORD = 'correct horse battery staple'
const SHARE_PASSWORD = 'für Gäste: sésame'
const MIB = 1024 * 1024

for (const storage of ['classic', 's3'] as const) {
  test(title(`links of either side open at the other, encrypted and plain, ${storage}`), async () => {
    const place = await world({ storage })
    const ann = await place.enter('ann')
    const guest = await place.enter('guest')
    await ann.call('create_key_pair', { password: KEY_PASSWORD, label: 'one' })
    const sealed = await ann.call('create_room', { name: 'Sealed' })
    await ann.call('encrypt_room', { room_id: sealed.id })
    await ann.call('create_room', { name: 'Plain' })
    await ann.call('unlock', { password: KEY_PASSWORD })
    const size = 2 * MIB + 17
    const source = place.file('file', content(size))
    for (const room of ['Sealed', 'Plain']) await ann.call('upload', { source, target: `/${room}` })
    const secret = place.file('share-password', Buffer.from(SHARE_PASSWORD))
    const keyFile = place.file('key-password', Buffer.from(KEY_PASSWORD))
    const cli = await cliOf(place, 'ann')
    const got = place.path('got')

    // Made by the peer, opened by both. Key pairs of either version, locked the older way.
    for (const version of ['RSA-4096', 'A']) {
      const made = await ann.call('create_share', {
        path: '/Sealed/file',
        share_password: SHARE_PASSWORD,
        label: `share-${version}`,
        version,
        maxDownloads: 2,
      })
      expect(made).toMatchObject({ isEncrypted: true, isProtected: false, cntDownloads: 0, maxDownloads: 2 })
      const open = { link: made.dataUrl, target: got, password: SHARE_PASSWORD }
      expect(await guest.call('open_share', { ...open, chunk: MIB })).toMatchObject({ fileName: 'file', size })
      expectSame(got, content(size))
      const wrong = await guest.fail('open_share', { ...open, password: 'wrong' })
      expect(wrong.message).toMatch(/decryption failed|unknown|Error/)
      await cli('download', made.dataUrl, place.path(`by-cli-${version}`), '--password-file', secret)
      expectSame(place.path(`by-cli-${version}`), content(size))
      // Ranges of one token were one download, and the wrong password never got as far as one.
      const late = await guest.fail('open_share', open)
      expect(late.message).toMatch(/privateKeyContainer/)
      expect((await ann.call('list_shares', { filter: `nodeId:eq:${made.nodeId}` }))[0].cntDownloads).toBe(2)
      await ann.raw('DELETE', `/v4/shares/downloads/${made.id}`)
    }

    // Made by the command line, opened by the peer.
    const linkOf = async (...args: string[]): Promise<string> => String((await cli(...args)).json[0]?.link)
    const encrypted = ['/Sealed/file', '--password-file', secret, '--key-password-file', keyFile]
    const link = await linkOf('share', 'create', ...encrypted)
    expect(await guest.call('open_share', { link, target: got, password: SHARE_PASSWORD })).toMatchObject({ size })
    expectSame(got, content(size))
    const plain = await linkOf('share', 'create', '/Plain/file', '--password-file', secret)
    expect(await guest.call('open_share', { link: plain, target: got, password: SHARE_PASSWORD })).toMatchObject({
      isProtected: true,
    })
    expectSame(got, content(size))
    const refused = await guest.fail('open_share', { link: plain, target: got, password: 'wrong' })
    expect(refused).toMatchObject({ status: 401, json: { errorCode: -50009 } })
    const unprotected = await ann.call('create_share', { path: '/Plain/file' })
    await guest.call('open_share', { link: unprotected.dataUrl, target: got })
    expectSame(got, content(size))
    const archive = await ann.call('create_share', { path: '/Plain' })
    await guest.call('open_share', { link: archive.dataUrl, target: got })
    expect(readFileSync(got).subarray(0, 4).toString('latin1')).toBe('PK\x03\x04')
    await clean(ann, guest)
  })

  test(title(`file requests of either side take what the other sends, ${storage}`), async () => {
    const place = await world({ storage })
    const [ann, bob] = [await place.enter('ann'), await place.enter('bob')]
    const guest = await place.enter('guest')
    for (const [peer, label] of [
      [ann, 'one'],
      [bob, 'two'],
    ] as const) {
      await peer.call('create_key_pair', { password: KEY_PASSWORD, label })
      await peer.call('unlock', { password: KEY_PASSWORD })
    }
    const sealed = await ann.call('create_room', { name: 'Sealed' })
    await ann.call('encrypt_room', { room_id: sealed.id })
    await ann.call('create_room', { name: 'Plain' })
    await ann.call('add_member', { room_id: sealed.id, user_id: bob.id })
    const size = 5 * MIB + 3
    const source = place.file('sent', content(size))
    const secret = place.file('request-password', Buffer.from(SHARE_PASSWORD))
    const cli = await cliOf(place, 'ann')
    const got = place.path('got')
    for (const room of ['Sealed', 'Plain']) {
      const made = await ann.call('create_request', { path: `/${room}`, password: SHARE_PASSWORD, maxSlots: 3 })
      const given = { link: made.dataUrl, source, password: SHARE_PASSWORD, via: storage, part_size: 5 * MIB }
      const outcome = await guest.call('send_to_request', { ...given, name: 'by peer' })
      expect(outcome).toMatchObject(
        storage === 's3' ? { status: 'done', fileName: 'by peer' } : { name: 'by peer', size },
      )
      await cli('upload', '--to-request', made.dataUrl, source, '--password-file', secret)
      for (const reader of room === 'Sealed' ? [ann, bob] : [ann]) {
        for (const name of ['by peer', 'sent']) {
          await reader.call('download', { path: `/${room}/${name}`, target: got })
          expectSame(got, content(size))
        }
      }
      expect((await ann.fail('send_to_request', { ...given, password: 'wrong' })).json.errorCode).toBe(-50502)
    }
    // By the command line's own request, and with mistakes that must not get through.
    const link = (await cli('request', 'create', '/Sealed')).json[0]?.link
    const given = { link, source, via: storage, part_size: 5 * MIB }
    for (const spoil of ['missing', 'stranger']) {
      const outcome = await guest
        .call('send_to_request', { ...given, name: spoil, spoil })
        .catch((error: unknown) => error)
      // A refusal may come with the answer or, where that was quicker, with the status.
      expect(JSON.stringify(outcome)).toMatch(/-40763|-70501/)
    }
    await guest.call('send_to_request', { ...given, name: 'right' })
    await bob.call('download', { path: '/Sealed/right', target: got })
    expectSame(got, content(size))
    expect((await bob.fail('node_at', { path: '/Sealed/missing' })).message).toMatch(/not found/)
    await clean(ann, bob, guest)
  })
}
